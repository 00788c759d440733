"""Conversations and arguments made portable: what one provider said or was told, so that the next one accepts it.

Rules of this package: a message is judged by who wrote it, an argument by whom it was meant for; what the target itself wrote or was told is
never touched. The caller's messages and arguments are never changed, only copied. Text, tool calls and their results always arrive; whatever
can't be carried is named in `changes`, in words that hold nothing of the conversation. `changes` is empty exactly when nothing was changed.

    dialects       tables: who speaks how, what each takes
    conversation   `fit`: the quick look, the walk over the messages, their order
    answers        what a model said: text and calls of another provider's answer
    parts          what the caller said: blocks of content
    calls          ids of tool calls
    arguments      `fit_arguments`: the call's keyword arguments and its tools

Reasons are at each table's rows. No real API was asked: what a provider refuses was read in its SDK's types, in the partner packages, and in
public reports of its error messages.
"""

from langchain_resilient.messages.arguments import fit_arguments
from langchain_resilient.messages.conversation import Fitted, fit

__all__ = ["Fitted", "fit", "fit_arguments"]

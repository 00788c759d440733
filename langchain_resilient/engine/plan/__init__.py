"""The story of a request, as plans: generators that yield effects and are sent their replies.

`story` tells it; `admission`, `settling` and `recovery` are its chapters, `relay` what a stream may still do after its first content;
`course` is the table of what each failure leads to, and `journey` what one request has been through.
"""

from langchain_resilient.engine.plan.story import answer

__all__ = ["answer"]

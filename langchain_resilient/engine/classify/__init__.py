"""What went wrong with an attempt: any exception in, one `Failure` of a closed vocabulary out.

`judgement` decides; `kinds` is the vocabulary, `tables` what providers call things, `evidence` how exceptions are read; `retry_after`,
`headroom` and `hint_headers` read what a provider says of its limits.
"""

from langchain_resilient.engine.classify.headroom import Headroom, read_headroom
from langchain_resilient.engine.classify.judgement import classify, classify_error
from langchain_resilient.engine.classify.kinds import ErrorKind, Failure
from langchain_resilient.engine.classify.retry_after import read_retry_after

__all__ = ["ErrorKind", "Failure", "Headroom", "classify", "classify_error", "read_headroom", "read_retry_after"]

"""A provider for trying it out without a key: `python pretend.py`, then follow what it prints.

Rules of this file: real HTTP in OpenAI's format, made-up answers. Enter switches the outage on and off.
"""

from langchain_resilient.testing import Fault, FaultServer

if __name__ == "__main__":
    with FaultServer(port=8099) as provider:
        print(f"export OPENAI_API_KEY=none OPENAI_BASE_URL={provider.base_url('openai')}")
        for fault in (Fault.ok(), Fault.status(503)) * 1000:
            provider.always(fault)
            input(f"{fault} from now on; Enter for the other, Ctrl-C to end. Requests so far: {provider.count}. ")

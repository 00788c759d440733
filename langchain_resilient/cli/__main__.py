"""`python -m langchain_resilient.cli`: the same as the `langchain-resilient` command."""

from langchain_resilient.cli import main

if __name__ == "__main__":
    main()

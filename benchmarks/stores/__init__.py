"""Parts of `redis_store.py`; `fleet.py` uses its server, processes and tables too."""

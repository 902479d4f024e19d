"""What `contract_live.py` asks the live API, how it judges the answers, and how it reports them."""

from specdec.testing import StrategyContract


class TestNgram(StrategyContract):
    strategy = "ngram"

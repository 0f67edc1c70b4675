"""The sessions of processes that died: found, ended or resumed."""

"""Training sets: from the trusted tables to a folder that can be verified by itself.

`options` says how a release is made. `creation` asks who may be in it (`consent`), gives each person an id of the
release's own (`subjects`) and a split (`splits`), pairs the readings (`matching`), cuts them (`windows`), writes them
(`data`), proves what it has written (`proof`) and describes it (`manifest`). The folder is whole before it has its
name (`folder`).
"""

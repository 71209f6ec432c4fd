"""The problems of the league, one a file: what is learnt, and how it is trained."""

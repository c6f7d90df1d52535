"""Applications of other people's libraries, served unchanged: the answers of gthread and of Greenroom compared.

catalogue   which applications there are, what they need, what is asked
apps/       one small real application each
recording   asking, and what of an answer is compared
serving     a server under test, its reload and its stop under load
__main__    `python -m tests.adoption [NAME ...]` makes the environments and writes docs/adoption.md
"""

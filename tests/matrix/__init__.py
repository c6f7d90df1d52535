"""Greenroom's wheel beside the oldest, the newest and mixed versions of what it is served with.

    pytest -m nightly tests/matrix            minutes: each set of versions gets an environment of its own

sets            which versions, under which Python
environments    making an environment; with MATRIX_FOLDER set, they are kept there and used again
shop            the application, with everything that is replaced
stand           the servers of one set
test_matrix     what all of them must do
"""

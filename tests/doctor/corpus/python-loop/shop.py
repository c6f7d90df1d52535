"""Prime numbers, counted in the view."""

from flask import Flask

app = Flask(__name__)


def primes(limit):
    found = []
    for number in range(2, limit):
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):  # <- stops-loop
            found.append(number)
    return found


@app.get("/primes")
def show():
    return {"count": len(primes(60_000))}

# Lets `flask` find the application, on the port that the demo board points at.
FLASK_APP=app
FLASK_RUN_PORT=8000

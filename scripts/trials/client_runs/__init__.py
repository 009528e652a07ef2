"""The clients of the trial `clients`, what each can do, and the server that they talk to."""

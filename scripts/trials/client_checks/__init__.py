"""The checks of the trial `clients`, one module for each client library."""

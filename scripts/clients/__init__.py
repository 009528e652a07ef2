"""The checks of scripts/try-clients.sh, one module for each client library."""

"""The programs behind `scripts/run`: one module for each, and what they share."""

"""Test-time search: trying variants while sampling and keeping the best."""

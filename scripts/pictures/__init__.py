"""The pictures of the README, made of a running heliosd: `make pictures`."""

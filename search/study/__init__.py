"""Studies of the search itself: methods replayed on recorded and synthetic problems. Nothing else imports this."""

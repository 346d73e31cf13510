"""What several tests share: servers, clusters, clients, models and checkers. No test stands here."""

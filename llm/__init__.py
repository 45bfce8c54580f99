"""Plans from a language model: it proposes, typed construction and measurement dispose."""

"""From files and hub sets to dialogues, from dialogues to prompts, from prompts to batches."""

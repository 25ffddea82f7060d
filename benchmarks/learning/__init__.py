"""What labels are worth: the re-ranker against the detectors alone, on families that it has not seen."""

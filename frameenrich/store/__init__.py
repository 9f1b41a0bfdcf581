"""Where jobs live: folders on disk or in a bucket."""

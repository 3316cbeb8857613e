"""What a target that is not at hand would do with a file: published rules, and its compiler."""

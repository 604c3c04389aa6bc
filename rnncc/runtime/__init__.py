"""What generated modules run on: vectors, cores, row helpers, threads, memory, the module store."""

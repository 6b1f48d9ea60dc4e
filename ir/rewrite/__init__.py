"""Every edit of a graph that more than one pass makes is here; no other room of `ir` edits one."""

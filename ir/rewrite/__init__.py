"""Every edit of a graph that more than one pass makes; no other room of `ir` edits one."""

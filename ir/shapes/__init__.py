"""Shape and value inference, and what operators demand of their operands."""

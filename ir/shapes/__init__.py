"""Shapes and small contents are inferred here, and operators say what they demand of their operands."""

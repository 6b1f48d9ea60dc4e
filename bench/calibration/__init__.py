"""What calibration costs: chunks against single steps."""

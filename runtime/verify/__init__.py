"""A result is compared with its original by running both through the recorded contracts."""

"""Everything that can be set: one YAML file, variables, and the policy file."""

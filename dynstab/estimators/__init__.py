"""Operator -> numbers with their doubt. One method a file, each against `LinearOperator` alone."""

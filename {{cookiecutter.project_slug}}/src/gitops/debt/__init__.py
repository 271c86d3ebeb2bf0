"""Hidden technical debt: found by machine (`make debts`)."""

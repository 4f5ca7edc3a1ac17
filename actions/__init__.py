"""The hands of the house: verdicts become a plan, the plan is guarded, made and recorded."""

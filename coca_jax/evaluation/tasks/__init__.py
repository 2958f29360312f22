"""What is measured on an evaluation dataset: one file for each task; `runner.TASKS` names them."""

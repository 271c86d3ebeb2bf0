"""Training on a cluster: the TrainJob of a commit, its submission, and what each of its nodes runs."""

"""Measured coverage of the 95 % intervals, written by the template's benchmarks/statistics.py."""

from __future__ import annotations

#: A line for each kind of test rows: the task, how errors are distributed (regression), the number of rows, of groups
#: and of rows of the rarest class (not for regression), the repetitions, and the fraction that held the true value of
#: each metric.
MEASURED = """
binary - 30 30 9 295 roc_auc=0.959 pr_auc=0.963 f1=0.983 accuracy=0.983 brier=0.946
binary - 100 100 30 295 roc_auc=0.973 pr_auc=0.949 f1=0.966 accuracy=0.956 brier=0.969
binary - 100 30 30 295 roc_auc=0.973 pr_auc=0.959 f1=0.983 accuracy=0.963 brier=0.956
binary - 300 300 90 295 roc_auc=0.953 pr_auc=0.932 f1=0.969 accuracy=0.969 brier=0.959
binary - 300 30 90 290 roc_auc=0.941 pr_auc=0.952 f1=0.966 accuracy=0.934 brier=0.955
binary - 1000 1000 300 290 roc_auc=0.959 pr_auc=0.948 f1=0.959 accuracy=0.962 brier=0.952
binary - 1000 50 300 290 roc_auc=0.955 pr_auc=0.955 f1=0.962 accuracy=0.945 brier=0.955
binary - 10000 10000 3000 145 roc_auc=0.931 pr_auc=0.945 f1=0.938 accuracy=0.897 brier=0.924
binary - 10000 500 3000 145 roc_auc=0.959 pr_auc=0.972 f1=0.966 accuracy=0.945 brier=0.959
binary - 100 100 1 290 roc_auc=0.983 pr_auc=0.990 f1=0.993 accuracy=0.972 brier=0.966
binary - 100 30 1 290 roc_auc=0.976 pr_auc=0.979 f1=0.997 accuracy=0.997 brier=0.990
binary - 300 300 3 290 roc_auc=0.983 pr_auc=0.952 f1=0.972 accuracy=0.983 brier=0.959
binary - 300 30 3 290 roc_auc=0.979 pr_auc=0.983 f1=1.000 accuracy=1.000 brier=0.990
binary - 1000 1000 10 290 roc_auc=0.990 pr_auc=0.972 f1=0.983 accuracy=0.979 brier=0.993
binary - 1000 50 10 290 roc_auc=0.976 pr_auc=0.983 f1=0.979 accuracy=0.986 brier=0.962
binary - 10000 10000 100 145 roc_auc=0.966 pr_auc=0.917 f1=0.931 accuracy=0.938 brier=0.952
binary - 10000 500 100 145 roc_auc=0.966 pr_auc=0.972 f1=0.986 accuracy=0.952 brier=0.945
multiclass - 30 30 9 290 macro_f1=0.955 accuracy=0.941 log_loss=0.938
multiclass - 100 100 30 290 macro_f1=0.938 accuracy=0.941 log_loss=0.924
multiclass - 100 30 30 290 macro_f1=0.959 accuracy=0.952 log_loss=0.952
multiclass - 300 300 90 290 macro_f1=0.952 accuracy=0.952 log_loss=0.945
multiclass - 300 30 90 290 macro_f1=0.938 accuracy=0.945 log_loss=0.941
multiclass - 1000 1000 300 290 macro_f1=0.969 accuracy=0.969 log_loss=0.955
multiclass - 1000 50 300 290 macro_f1=0.952 accuracy=0.952 log_loss=0.941
multiclass - 10000 10000 3000 145 macro_f1=0.959 accuracy=0.979 log_loss=0.986
multiclass - 10000 500 3000 145 macro_f1=0.993 accuracy=0.993 log_loss=0.986
multiclass - 100 100 1 290 macro_f1=0.993 accuracy=0.952 log_loss=0.941
multiclass - 100 30 1 290 macro_f1=1.000 accuracy=0.945 log_loss=0.945
multiclass - 300 300 3 290 macro_f1=0.986 accuracy=0.955 log_loss=0.976
multiclass - 300 30 3 290 macro_f1=0.993 accuracy=0.955 log_loss=0.955
multiclass - 1000 1000 10 290 macro_f1=0.983 accuracy=0.931 log_loss=0.941
multiclass - 1000 50 10 290 macro_f1=0.986 accuracy=0.966 log_loss=0.948
multiclass - 10000 10000 100 145 macro_f1=0.972 accuracy=0.938 log_loss=0.966
multiclass - 10000 500 100 145 macro_f1=0.952 accuracy=0.952 log_loss=0.945
regression normal 30 30 - 290 rmse=0.959 mae=0.955 r2=0.955
regression normal 100 100 - 290 rmse=0.948 mae=0.938 r2=0.934
regression normal 100 30 - 290 rmse=0.959 mae=0.962 r2=0.962
regression normal 300 300 - 290 rmse=0.955 mae=0.976 r2=0.959
regression normal 300 30 - 290 rmse=0.959 mae=0.955 r2=0.962
regression normal 1000 1000 - 290 rmse=0.941 mae=0.952 r2=0.945
regression normal 1000 50 - 290 rmse=0.959 mae=0.962 r2=0.952
regression normal 10000 10000 - 145 rmse=0.959 mae=0.945 r2=0.972
regression normal 10000 500 - 145 rmse=0.959 mae=0.966 r2=0.931
regression log-normal 30 30 - 290 rmse=0.814 mae=0.879 r2=0.759
regression log-normal 100 100 - 290 rmse=0.907 mae=0.934 r2=0.841
regression log-normal 100 30 - 290 rmse=0.883 mae=0.910 r2=0.828
regression log-normal 300 300 - 290 rmse=0.938 mae=0.972 r2=0.928
regression log-normal 300 30 - 290 rmse=0.900 mae=0.917 r2=0.831
regression log-normal 1000 1000 - 290 rmse=0.910 mae=0.955 r2=0.917
regression log-normal 1000 50 - 290 rmse=0.924 mae=0.934 r2=0.893
regression log-normal 10000 10000 - 145 rmse=0.945 mae=0.972 r2=0.931
regression log-normal 10000 500 - 145 rmse=0.945 mae=0.979 r2=0.931
"""

"""Measured coverage of the 95 % intervals, written by the template's benchmarks/intervals.py."""

from __future__ import annotations

#: A line for each kind of test rows: the task, how errors are distributed (regression), the number of rows, of groups
#: and of rows of the rarest class (not for regression), the repetitions, and the fraction that held the true value of
#: each metric.
MEASURED = """
binary - 30 30 9 555 roc_auc=0.955 pr_auc=0.964 f1=0.987 accuracy=0.986 brier=0.950
binary - 100 100 30 555 roc_auc=0.975 pr_auc=0.960 f1=0.969 accuracy=0.962 brier=0.966
binary - 100 30 30 555 roc_auc=0.966 pr_auc=0.950 f1=0.966 accuracy=0.959 brier=0.946
binary - 300 300 90 555 roc_auc=0.966 pr_auc=0.950 f1=0.971 accuracy=0.960 brier=0.957
binary - 300 30 90 555 roc_auc=0.951 pr_auc=0.962 f1=0.973 accuracy=0.941 brier=0.955
binary - 1000 1000 300 555 roc_auc=0.968 pr_auc=0.964 f1=0.959 accuracy=0.966 brier=0.966
binary - 1000 50 300 555 roc_auc=0.957 pr_auc=0.959 f1=0.966 accuracy=0.950 brier=0.966
binary - 10000 10000 3000 555 roc_auc=0.951 pr_auc=0.951 f1=0.948 accuracy=0.944 brier=0.950
binary - 10000 500 3000 555 roc_auc=0.955 pr_auc=0.971 f1=0.964 accuracy=0.950 brier=0.941
binary - 100 100 1 555 roc_auc=0.980 pr_auc=0.987 f1=0.995 accuracy=0.975 brier=0.957
binary - 100 30 1 555 roc_auc=0.978 pr_auc=0.980 f1=0.998 accuracy=0.996 brier=0.982
binary - 300 300 3 555 roc_auc=0.978 pr_auc=0.959 f1=0.978 accuracy=0.987 brier=0.971
binary - 300 30 3 555 roc_auc=0.980 pr_auc=0.991 f1=1.000 accuracy=1.000 brier=0.987
binary - 1000 1000 10 555 roc_auc=0.986 pr_auc=0.977 f1=0.978 accuracy=0.977 brier=0.982
binary - 1000 50 10 555 roc_auc=0.975 pr_auc=0.978 f1=0.975 accuracy=0.987 brier=0.966
binary - 10000 10000 100 555 roc_auc=0.959 pr_auc=0.939 f1=0.951 accuracy=0.948 brier=0.966
binary - 10000 500 100 555 roc_auc=0.939 pr_auc=0.962 f1=0.955 accuracy=0.964 brier=0.951
multiclass - 30 30 9 555 macro_f1=0.951 accuracy=0.939 log_loss=0.951
multiclass - 100 100 30 555 macro_f1=0.941 accuracy=0.944 log_loss=0.935
multiclass - 100 30 30 555 macro_f1=0.959 accuracy=0.953 log_loss=0.955
multiclass - 300 300 90 555 macro_f1=0.955 accuracy=0.953 log_loss=0.946
multiclass - 300 30 90 555 macro_f1=0.948 accuracy=0.948 log_loss=0.946
multiclass - 1000 1000 300 555 macro_f1=0.950 accuracy=0.950 log_loss=0.944
multiclass - 1000 50 300 555 macro_f1=0.950 accuracy=0.946 log_loss=0.944
multiclass - 10000 10000 3000 555 macro_f1=0.953 accuracy=0.955 log_loss=0.959
multiclass - 10000 500 3000 555 macro_f1=0.957 accuracy=0.955 log_loss=0.960
multiclass - 100 100 1 555 macro_f1=0.991 accuracy=0.959 log_loss=0.955
multiclass - 100 30 1 555 macro_f1=0.996 accuracy=0.951 log_loss=0.948
multiclass - 300 300 3 555 macro_f1=0.977 accuracy=0.957 log_loss=0.969
multiclass - 300 30 3 555 macro_f1=0.993 accuracy=0.957 log_loss=0.955
multiclass - 1000 1000 10 550 macro_f1=0.978 accuracy=0.953 log_loss=0.945
multiclass - 1000 50 10 550 macro_f1=0.991 accuracy=0.956 log_loss=0.944
multiclass - 10000 10000 100 550 macro_f1=0.984 accuracy=0.935 log_loss=0.945
multiclass - 10000 500 100 550 macro_f1=0.951 accuracy=0.956 log_loss=0.953
regression normal 30 30 - 550 rmse=0.955 mae=0.951 r2=0.944
regression normal 100 100 - 550 rmse=0.949 mae=0.947 r2=0.944
regression normal 100 30 - 550 rmse=0.960 mae=0.965 r2=0.951
regression normal 300 300 - 550 rmse=0.956 mae=0.967 r2=0.962
regression normal 300 30 - 550 rmse=0.962 mae=0.962 r2=0.956
regression normal 1000 1000 - 550 rmse=0.947 mae=0.956 r2=0.951
regression normal 1000 50 - 550 rmse=0.962 mae=0.964 r2=0.953
regression normal 10000 10000 - 550 rmse=0.953 mae=0.953 r2=0.958
regression normal 10000 500 - 550 rmse=0.964 mae=0.951 r2=0.955
regression log-normal 30 30 - 550 rmse=0.793 mae=0.858 r2=0.740
regression log-normal 100 100 - 550 rmse=0.902 mae=0.927 r2=0.865
regression log-normal 100 30 - 550 rmse=0.889 mae=0.913 r2=0.835
regression log-normal 300 300 - 550 rmse=0.929 mae=0.962 r2=0.904
regression log-normal 300 30 - 550 rmse=0.904 mae=0.905 r2=0.844
regression log-normal 1000 1000 - 550 rmse=0.918 mae=0.951 r2=0.922
regression log-normal 1000 50 - 550 rmse=0.911 mae=0.931 r2=0.887
regression log-normal 10000 10000 - 550 rmse=0.942 mae=0.949 r2=0.927
regression log-normal 10000 500 - 550 rmse=0.945 mae=0.955 r2=0.940
"""

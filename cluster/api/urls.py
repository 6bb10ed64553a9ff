from __future__ import annotations

from django.urls import path

from cluster.api import logs, monitoring, nodes

urlpatterns = [
    path("api/v1/cluster/stats", nodes.StatsView.as_view(), name="cluster-stats"),
    path("api/v1/cluster/nodes", nodes.NodesView.as_view(), name="cluster-nodes"),
    path("api/v1/cluster/nodes/<str:node_id>", nodes.NodeView.as_view(), name="cluster-node"),
    path("api/v1/cluster/nodes/<str:node_id>/drain", nodes.DrainView.as_view(), name="cluster-node-drain"),
    path("api/v1/cluster/nodes/<str:node_id>/resume", nodes.ResumeView.as_view(), name="cluster-node-resume"),
    path("api/v1/cluster/join", nodes.JoinView.as_view(), name="cluster-join"),
    path("api/v1/cluster/heartbeat", nodes.HeartbeatView.as_view(), name="cluster-heartbeat"),
    path("api/v1/monitoring/system", monitoring.SystemView.as_view(), name="monitoring-system"),
    path("api/v1/monitoring/metrics", monitoring.MetricsSummaryView.as_view(), name="monitoring-metrics"),
    path("api/v1/logs", logs.LogsView.as_view(), name="logs"),
    path("metrics", monitoring.PrometheusView.as_view(), name="metrics"),
]

"""The controller: reconcilers for workspaces, requests, pools and endpoints, as pure functions."""

"""The server of `qwen3vl-server` as an application of Ray Serve, which `qwen3vl_ray.serve` builds.

The ingress (`ingress`) is the server's own application. Its models are backends (`backends`) that send items to
deployments of replicas (`replicas`), each of which runs an engine: by `messages`, over a deployment's handle
(`handles`), to the replica that has seen the same media (`routing`).
"""

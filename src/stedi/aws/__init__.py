"""The lake on AWS: the stacks' templates, deployment, runs of the job, Athena, and costs.

There are two stacks: `data.yaml` holds what must outlive everything else, `lake.yaml` holds what works on it. boto3
comes with the extra `aws` and is imported when needed. Region, credentials and endpoints are found as by any AWS tool.
"""

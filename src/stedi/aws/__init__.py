"""The lake on AWS: the stack's templates, what deploys and runs it, Athena, and what it costs.

Two stacks: `data.yaml` holds what must outlive everything else, `lake.yaml` what works on it. boto3 is the extra `aws`
and imported when it is needed; region, keys and endpoints come from where every AWS tool finds them.
"""

# The same as ../cloudformation.yaml, resource by resource; a test compares the two. docs/how-to/deploying.md says how to use it.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

output "table" {
  description = "SEGMENT_TABLE of the site"
  value       = aws_dynamodb_table.messages_table.name
}

output "bucket" {
  description = "SEGMENT_BUCKET of the site"
  value       = aws_s3_bucket.bucket.id
}

output "queue_url" {
  description = "SEGMENT_QUEUE of the site where Celery flushes"
  value       = aws_sqs_queue.queue.id
}

output "web_role" {
  description = "Role for the web processes"
  value       = aws_iam_role.web_role.arn
}

output "web_policy" {
  description = "The same as a policy for a role of your own"
  value       = aws_iam_policy.web_policy.arn
}

output "worker_role" {
  description = "Role for Celery's workers and beat"
  value       = aws_iam_role.worker_role.arn
}

output "archive_policy" {
  description = "For people who work on the archive"
  value       = aws_iam_policy.archive_policy.arn
}

output "function" {
  description = "The scheduled flush"
  value       = local.has_flush ? aws_lambda_function.flush_function[0].function_name : null
}

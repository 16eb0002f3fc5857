# Celery's queue: ticks of the flush, and whatever else the site has for its workers; never messages.

resource "aws_sqs_queue" "queue" {
  name_prefix = "${var.name}-"
  # Celery's visibility_timeout says the same: longer than any task runs.
  visibility_timeout_seconds = 600
  message_retention_seconds  = 345600
  sqs_managed_sse_enabled    = true

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_tasks_queue.arn
    maxReceiveCount     = 5
  })
}

resource "aws_sqs_queue" "dead_tasks_queue" {
  name_prefix               = "${var.name}-dead-"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

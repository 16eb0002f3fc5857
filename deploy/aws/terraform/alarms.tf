# No word of the flush for ten minutes is an alarm, too.
resource "aws_cloudwatch_metric_alarm" "oldest_message_alarm" {
  count = local.has_flush ? 1 : 0

  alarm_name          = "${var.name}-oldest-message"
  alarm_description   = "A message has waited too long for Segment, or the flush does not run. Look at the function's log."
  namespace           = "SegmentFallback"
  metric_name         = "OldestMessageAge"
  dimensions          = { FunctionName = aws_lambda_function.flush_function[0].function_name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.max_age
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "dead_letters_alarm" {
  count = local.has_flush ? 1 : 0

  alarm_name          = "${var.name}-dead-letters"
  alarm_description   = "Segment refused messages. `manage.py segment_dead_letters list` says why."
  namespace           = "SegmentFallback"
  metric_name         = "DeadLetters"
  dimensions          = { FunctionName = aws_lambda_function.flush_function[0].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "flush_fails_alarm" {
  count = local.has_flush ? 1 : 0

  alarm_name          = "${var.name}-flush-fails"
  alarm_description   = "The flush cannot work, wrong settings or no buffer. Look at the function's log."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = aws_lambda_function.flush_function[0].function_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

resource "aws_cloudwatch_metric_alarm" "dead_tasks_alarm" {
  alarm_name          = "${var.name}-dead-tasks"
  alarm_description   = "Celery's workers have failed at tasks again and again."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_tasks_queue.name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_topics
  ok_actions          = local.alarm_topics
}

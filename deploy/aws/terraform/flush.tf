# The scheduled flush.

resource "aws_cloudwatch_log_group" "flush_log" {
  count = local.has_flush ? 1 : 0

  name              = "/aws/lambda/${var.name}-flush"
  retention_in_days = 30
}

resource "aws_lambda_function" "flush_function" {
  count = local.has_flush ? 1 : 0

  function_name                  = "${var.name}-flush"
  handler                        = "segment_fallback.aws.flush_handler"
  runtime                        = var.runtime
  s3_bucket                      = var.code_bucket
  s3_key                         = var.code_key
  role                           = aws_iam_role.flush_role[0].arn
  memory_size                    = 512
  timeout                        = var.flush_timeout
  reserved_concurrent_executions = var.flush_concurrency == 0 ? -1 : var.flush_concurrency

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.flush_log[0].name
  }

  environment {
    variables = {
      DJANGO_SETTINGS_MODULE   = var.settings_module
      SEGMENT_TABLE            = aws_dynamodb_table.messages_table.name
      SEGMENT_BUCKET           = aws_s3_bucket.bucket.id
      SEGMENT_WRITE_KEY_SECRET = var.write_key_secret_arn
    }
  }
}

# What failed is not tried again: the next minute's run does all of it.
resource "aws_lambda_function_event_invoke_config" "flush_invocation" {
  count = local.has_flush ? 1 : 0

  function_name                = aws_lambda_function.flush_function[0].function_name
  qualifier                    = "$LATEST"
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}

resource "aws_cloudwatch_event_rule" "flush_rule" {
  count = local.has_flush ? 1 : 0

  name                = "${var.name}-flush"
  description         = "Flushes what waits for Segment."
  schedule_expression = var.flush_schedule
  state               = "ENABLED"
}

resource "aws_cloudwatch_event_target" "flush_rule" {
  count = local.has_flush ? 1 : 0

  rule      = aws_cloudwatch_event_rule.flush_rule[0].name
  target_id = "flush"
  arn       = aws_lambda_function.flush_function[0].arn
}

resource "aws_lambda_permission" "flush_permission" {
  count = local.has_flush ? 1 : 0

  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.flush_function[0].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.flush_rule[0].arn
}

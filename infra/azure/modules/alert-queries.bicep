// Log search alerts over what the control plane tells of itself (docs/observability.md). Each query is a file of its own,
// to run by hand as well. The product's own alerts, by webhook and chat, come first;
// these watch the product itself. Dead letters and a tick that stays away have platform rules of their own (alerts.bicep).

@description('Region of the rules: that of the Log Analytics workspace.')
param location string

@description('Tags of every rule.')
param tags object = {}

@description('Resource id of the Log Analytics workspace that Application Insights writes to.')
param workspaceId string

@description('Resource id of the action group that is told. Empty: the rules are shown in Azure Monitor and tell nobody.')
param actionGroupId string = ''

@description('Begins the name of every rule.')
param namePrefix string = 'uds'

@description('Minutes that a watermark may lie behind before it is an alert. Pipelines that run once a day need more than a day.')
@minValue(5)
param lagMinutes int

@description('Seconds that a launch may wait before it is an alert.')
@minValue(60)
param launchSeconds int

@description('Whether the rules are evaluated.')
param enabled bool = true

var actionGroups = empty(actionGroupId) ? [] : [actionGroupId]

var byPipeline = [
  {
    name: 'Pipeline'
    operator: 'Include'
    values: ['*']
  }
]

var rules = [
  {
    key: 'failed-runs'
    title: 'A run failed'
    description: 'A pipeline had a run that failed. Next: uds history PIPELINE, and the runbook of the error code.'
    query: loadTextContent('../queries/failed-runs.kql')
    column: 'Failures'
    aggregation: 'Total'
    operator: 'GreaterThan'
    threshold: 0
    severity: 2
    frequency: 'PT5M'
    window: 'PT15M'
    dimensions: byPipeline
  }
  {
    key: 'lag'
    title: 'A watermark lags behind'
    description: 'The newest row of a target is older than allowed. Next: uds status, then the runs of the pipeline.'
    query: loadTextContent('../queries/lag.kql')
    column: 'LagMinutes'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: lagMinutes
    severity: 2
    frequency: 'PT15M'
    window: 'PT30M'
    dimensions: byPipeline
  }
  {
    key: 'slow-launches'
    title: 'A launch waited long'
    description: 'A run was begun long before it was launched. Next: max_concurrent of its connections, and the compute.'
    query: loadTextContent('../queries/slow-launches.kql')
    column: 'SlowestSeconds'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: launchSeconds
    severity: 3
    frequency: 'PT15M'
    window: 'PT30M'
    dimensions: byPipeline
  }
]

resource alert 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in rules: {
    name: '${namePrefix}-${rule.key}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: rule.title
      description: rule.description
      enabled: enabled
      severity: rule.severity
      scopes: [workspaceId]
      evaluationFrequency: rule.frequency
      windowSize: rule.window
      autoMitigate: true
      // Before the first telemetry the workspace has no such tables, and a check of the query would refuse it.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            // Each row is a series that is watched and paid for: those that are in order are left out.
            query: '${rule.query}| where ${rule.column} > ${rule.threshold}'
            metricMeasureColumn: rule.column
            timeAggregation: rule.aggregation
            operator: rule.operator
            threshold: rule.threshold
            dimensions: rule.dimensions
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: actionGroups
      }
    }
  }
]
